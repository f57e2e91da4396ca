#include "io/model_name.h"

namespace lathe {

// Links are not followed: caches of downloads keep a model's name on a link to a hash.
std::string model_name(const std::filesystem::path& path) {
  const std::filesystem::path whole = std::filesystem::absolute(path).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

}  // namespace lathe
