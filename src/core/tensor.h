// Bytes somewhere, and a row-major view of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe {

enum class DType : uint8_t { f32, f16, bf16, f8e4m3, f8e5m2, f8e8m0, i64, i32, i16, i8, u8, boolean };

size_t dtype_bytes(DType);
std::string_view dtype_name(DType);  // "f32", "bf16", ...
bool is_float(DType);

using Shape = std::vector<int64_t>;
std::string to_string(const Shape&);  // "[128, 64]"

// Elements of a shape. Throws Error on a negative dimension or when the product does not fit.
int64_t elements(const Shape&);

// Bytes somewhere. A file mapping and an owned buffer are both Storage; `keep` frees them.
struct Storage {
  std::byte* data = nullptr;
  size_t bytes = 0;
  std::shared_ptr<const void> keep;

  // 64-byte aligned and zeroed, so kernels may use aligned loads and no output is ever uninitialised.
  static Storage allocate(size_t bytes);
};

// A dense row-major view. Copying a Tensor copies the view, never the bytes.
struct Tensor {
  Storage storage;
  DType dtype = DType::f32;
  Shape shape;
  // In elements, of each dimension, where they do not lie densely: as<T>() refuses, storage.bytes is what all
  // of it spans. Empty: dense.
  Shape strides = {};

  static Tensor zeros(DType, Shape);
  // Some elements of a dense tensor, from `first` on: no bytes are copied. Throws Error where that leaves it.
  Tensor view(int64_t first, Shape shape, Shape strides) const;
  template <class T>
  static Tensor of(DType dtype, Shape shape, std::span<const T> values);

  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t cols() const { return shape.size() < 2 ? 1 : elements(shape) / std::max<int64_t>(shape[0], 1); }
  size_t bytes() const { return static_cast<size_t>(elements(shape)) * dtype_bytes(dtype); }

  // The elements as T; throws Error when T's size is not the dtype's. 16-bit floats are seen as uint16_t,
  // 8-bit floats as uint8_t.
  template <class T>
  std::span<const T> as() const;
  template <class T>
  std::span<T> as_mutable();

 private:
  void check_element(size_t size) const;
};

template <class T>
std::span<const T> Tensor::as() const {
  check_element(sizeof(T));
  return {reinterpret_cast<const T*>(storage.data), static_cast<size_t>(elements(shape))};
}

template <class T>
std::span<T> Tensor::as_mutable() {
  check_element(sizeof(T));
  return {reinterpret_cast<T*>(storage.data), static_cast<size_t>(elements(shape))};
}

template <class T>
Tensor Tensor::of(DType dtype, Shape shape, std::span<const T> values) {
  Tensor t = zeros(dtype, std::move(shape));
  auto out = t.as_mutable<T>();
  std::copy(values.begin(), values.end(), out.begin());
  return t;
}

}  // namespace lathe
