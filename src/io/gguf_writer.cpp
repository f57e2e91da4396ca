#include "io/gguf_writer.h"

#include "core/error.h"

namespace lathe {
namespace {

constexpr size_t alignment = 32;
size_t aligned(size_t n) { return (n + alignment - 1) / alignment * alignment; }

template <class T>
void append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append(std::string& to, const std::string& text) {
  append(to, static_cast<uint64_t>(text.size()));
  to += text;
}
void append(std::string& to, bool value) { to += value ? '\1' : '\0'; }

// GGUF's numbers of value types.
enum Type : uint32_t { u32 = 4, i32 = 5, f32 = 6, boolean = 7, string = 8, array = 9 };
constexpr Type type_of(uint32_t) { return u32; }
constexpr Type type_of(int32_t) { return i32; }
constexpr Type type_of(float) { return f32; }
constexpr Type type_of(bool) { return boolean; }
Type type_of(const std::string&) { return string; }

template <class T>
void append_value(std::string& to, const T& value) {
  append(to, static_cast<uint32_t>(type_of(value)));
  append(to, value);
}
template <class T>
void append_value(std::string& to, const std::vector<T>& values) {
  append(to, static_cast<uint32_t>(array));
  append(to, static_cast<uint32_t>(type_of(T{})));
  append(to, static_cast<uint64_t>(values.size()));
  for (const T& value : values) append(to, value);
}

size_t bytes_of(const GgufWriter::Item& item) {
  return packed_bytes(item.type->numerics, packing(item.type->packing), item.shape);
}

}  // namespace

GgufWriter::GgufWriter(const fs::path& path, const std::vector<GgufEntry>& metadata, std::vector<Item> items)
    : out_(path), items_(std::move(items)) {
  std::string head = "GGUF";
  append(head, uint32_t{3});
  append(head, static_cast<uint64_t>(items_.size()));
  append(head, static_cast<uint64_t>(metadata.size()));
  for (const GgufEntry& entry : metadata) {
    append(head, entry.key);
    std::visit([&](const auto& value) { append_value(head, value); }, entry.value);
  }
  size_t offset = 0;
  for (const Item& item : items_) {
    append(head, item.name);
    append(head, static_cast<uint32_t>(item.shape.size()));
    for (size_t i = item.shape.size(); i-- > 0;) append(head, static_cast<uint64_t>(item.shape[i]));
    append(head, item.type->id);
    append(head, static_cast<uint64_t>(offset));
    offset = aligned(offset + bytes_of(item));
  }
  head.resize(aligned(head.size()));
  out_.write(head);
}

void GgufWriter::write(const Weight& w) {
  if (next_ == items_.size()) fail("GGUF: a tensor more than planned");
  const Item& item = items_[next_];
  const Shape shape(item.shape.begin() + (item.experts ? 1 : 0), item.shape.end());
  if (w.packing->name != item.type->packing || w.numerics != item.type->numerics || w.shape != shape)
    fail("'{}' was planned as {} {} and is {} {} {}", item.name, item.type->name, to_string(shape),
         w.packing->name, to_string(w.numerics), to_string(w.shape));
  const Tensor& part = w.parts[0];
  out_.write(part.storage.data, part.bytes());
  if (item.experts && ++written_ < item.shape[0]) return;
  const size_t bytes = bytes_of(item);
  out_.write(std::string(aligned(bytes) - bytes, '\0'));
  written_ = 0;
  ++next_;
}

void GgufWriter::finish() {
  if (next_ != items_.size()) fail("'{}' was planned and not written", items_[next_].name);
  out_.finish();
}

}  // namespace lathe
