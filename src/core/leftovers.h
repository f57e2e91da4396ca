// Where writers keep what is not finished, and what killed ones leave there.
#pragma once

#include <filesystem>
#include <string_view>

namespace lathe {

// ".model.lathe-KIND" beside "model": hidden, and by no name that anyone but Lathe gives.
std::filesystem::path beside(const std::filesystem::path& target, std::string_view kind);

// The same of this process: ".model.lathe-tmp-123".
std::filesystem::path temporary_beside(const std::filesystem::path& target);
std::filesystem::path old_beside(const std::filesystem::path& target);

// Once process 123 is gone, what is called so is litter and removed, but for an old directory whose new one
// never came, which is put back. Nothing else is touched.
void sweep_leftovers(const std::filesystem::path& target);

}  // namespace lathe
