#include "io/model_hash.h"

#include "core/checksum.h"
#include "core/error.h"

namespace lathe {

void ModelHash::add(std::string_view name, const Tensor& tensor) {
  // Where elements lie apart, with what lies between them.
  const size_t bytes = tensor.strides.empty() ? tensor.bytes() : tensor.storage.bytes;
  hash_.add(fmt::format("{} {} {} {}\n", name, dtype_name(tensor.dtype), to_string(tensor.shape),
                        checksum({tensor.storage.data, bytes})));
}

}  // namespace lathe
