// The safetensors container: https://github.com/huggingface/safetensors (format section).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"

namespace lathe {

// One file, mapped. Opening checks: header length, JSON, no duplicate names, dtype x shape == bytes, ranges
// inside the file that neither overlap nor leave holes.
class SafetensorsFile {
 public:
  struct Item {
    DType dtype;
    Shape shape;
    size_t begin = 0, end = 0;  // in the file
  };
  static SafetensorsFile open(const fs::path&);
  // The checks alone, on bytes in memory: what the fuzz target drives. Returns the items by name.
  static std::map<std::string, Item, std::less<>> parse_header(std::span<const std::byte> file,
                                                               std::string_view where);

  const std::map<std::string, Item, std::less<>>& items() const { return items_; }
  // A view of the mapping, or a copy where the file does not align the elements. Error when there is no such
  // tensor.
  Tensor load(std::string_view name) const;
  void forget(std::string_view name) const;

 private:
  explicit SafetensorsFile(Mapping mapping) : mapping_(std::move(mapping)) {}
  const Item& item(std::string_view name) const;
  Mapping mapping_;
  std::map<std::string, Item, std::less<>> items_;
};

// Bytes [offset, offset + size) of a mapped file as a tensor: a view, or a copy where they are not aligned
// for `dtype`.
Tensor mapped_tensor(const Mapping&, size_t offset, DType, Shape);

// Writes one file in the order of `items`: the header first, then each tensor as it is made, so that memory
// holds one. The file lies in an AtomicDirectory, whose commit() waits for the disk.
class SafetensorsWriter {
 public:
  struct Item {
    std::string name;
    DType dtype;
    Shape shape;
  };
  SafetensorsWriter(const fs::path&, std::vector<Item> items);
  void write(const Tensor&);  // the next item; Error when dtype or shape differ from what was announced
  void finish();              // Error when items are missing

 private:
  FileWriter out_;
  std::vector<Item> items_;
  size_t next_ = 0;
};

}  // namespace lathe
