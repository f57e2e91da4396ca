// Where this user's programs keep what they can make again.
#pragma once

#include <filesystem>

namespace lathe {

// $LATHE_CACHE, $XDG_CACHE_HOME/lathe or ~/.cache/lathe; empty where none of them is known.
std::filesystem::path cache_directory();

}  // namespace lathe
