// Small checkpoints that tests change before they are opened.
#pragma once

#include "io/safetensors.h"
#include "models/model.h"
#include "support.h"

namespace lathe::testing_support {

// A copy of a tiny checkpoint whose tensors and config may be edited before it is written.
class Edited {
 public:
  explicit Edited(const std::string& family) : config(read_json(golden(family) / "config.json")) {
    const SafetensorsFile file = SafetensorsFile::open(golden(family) / "model.safetensors");
    for (const auto& [name, item] : file.items()) tensors[name] = file.load(name);
  }
  fs::path write() const {
    std::vector<SafetensorsWriter::Item> items;
    for (const auto& [name, tensor] : tensors) items.push_back({name, tensor.dtype, tensor.shape});
    SafetensorsWriter writer(directory_.path() / "model.safetensors", items);
    for (const auto& [name, tensor] : tensors) writer.write(tensor);
    writer.finish();
    write_file_atomically(directory_.path() / "config.json", config.dump());
    return directory_.path();
  }
  std::map<std::string, Tensor> tensors;
  Json config;

 private:
  TemporaryDirectory directory_;
};

inline std::string load_error(const fs::path& path) {
  try {
    load(Checkpoint::open(path));
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace lathe::testing_support
