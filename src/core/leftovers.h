// What killed writers leave behind.
#pragma once

#include <filesystem>

namespace lathe {

// "model.tmp-123" and "model.old-123" beside `target` belong to process 123: once it is gone they are litter
// and removed, but for an old directory whose new one never came, which is put back.
void sweep_leftovers(const std::filesystem::path& target);

}  // namespace lathe
