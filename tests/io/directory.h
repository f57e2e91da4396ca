// Directories of a model, written down: good ones to open, others to be refused.
#pragma once

#include "io/attack.h"
#include "io/checkpoint.h"

namespace lathe {

inline std::string tensor(std::string_view name, std::string_view dtype, const std::string& shape,
                          size_t begin, size_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin,
                     end);
}

// Name, dtype, shape, bytes.
using Tensors = std::vector<std::tuple<std::string, std::string, std::string, size_t>>;

inline std::string file_of(const Tensors& tensors, const std::string& data = "") {
  std::string header;
  size_t at = 0;
  for (const auto& [name, dtype, shape, bytes] : tensors) {
    header += (header.empty() ? "{" : ",") + tensor(name, dtype, shape, at, at + bytes);
    at += bytes;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return safetensors(header, at - data.size()) + data;  // `data` is the end of it
}

// A directory of files; the message must start with the path of one of them.
struct Attack {
  const char* name;
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<std::string> message;
};

inline void expect_refused(const std::vector<Attack>& attacks) {
  for (const Attack& a : attacks) {
    SCOPED_TRACE(a.name);
    testing_support::TemporaryDirectory dir;
    for (const auto& [name, contents] : a.files) {
      if (name.ends_with("/"))
        fs::create_directories(dir / name);
      else
        dir.put(name, contents);
    }
    const std::string message = refusal([&] { Checkpoint::open(dir.path()); });
    EXPECT_TRUE(message.starts_with(dir.path().string())) << message;
    expect_fragments(message, a.message);
  }
}

}  // namespace lathe
