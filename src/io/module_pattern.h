// Regular expressions that files name modules with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace lathe {

// Python's re.match: anchored at the start. Its length and its steps are bounded, because it comes from a
// file.
class ModulePattern {
 public:
  ModulePattern(const std::string& text, std::string_view where);  // InputError on what is no expression
  bool matches(std::string_view module) const;                     // InputError where that takes too long

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace lathe
