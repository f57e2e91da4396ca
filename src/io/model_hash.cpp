#include "io/model_hash.h"

#include "core/checksum.h"
#include "core/error.h"

namespace lathe {

void ModelHash::add(std::string_view name, const Tensor& tensor) {
  hash_.add(fmt::format("{} {} {} {}\n", name, dtype_name(tensor.dtype), to_string(tensor.shape),
                        checksum({tensor.storage.data, tensor.bytes()})));
}

}  // namespace lathe
