// What a model is called that has no other name.
#pragma once

#include <filesystem>
#include <string>

namespace lathe {

// The name of its directory or file: "foo" of "models/foo", of "models/foo/", and of "." there.
std::string model_name(const std::filesystem::path&);

}  // namespace lathe
