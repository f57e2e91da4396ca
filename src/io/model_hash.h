// The name of a model's weights in recipes and reports.
#pragma once

#include <string_view>

#include "core/hash.h"
#include "core/tensor.h"

namespace lathe {

// SHA-256 over a line for each tensor, in the order of the file: name, dtype, shape, and the checksum
// (core/checksum.h) of its bytes. It tells models apart; it does not withstand somebody who makes two of one
// name.
class ModelHash {
 public:
  void add(std::string_view name, const Tensor&);
  std::string hex() { return hash_.hex(); }  // finishes; 64 lower-case digits

 private:
  Sha256 hash_;
};

}  // namespace lathe
