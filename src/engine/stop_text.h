// Ends a text at the stop string that is complete first (of several, at the longest), and never shows the
// beginning of one. How the text is cut into pieces makes no difference.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lathe {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stops = {});  // empty ones are left out

  // Of the text so far, what is certain to be shown and was not returned before. Only a stop string that
  // ends in a piece which `may_stop` ends the text.
  std::string push(std::string_view piece, bool may_stop = true);
  std::string finish();  // what was held back; the text ended for another reason
  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // the stop string, when stopped

 private:
  std::vector<std::string> stops_;
  std::string held_, matched_;
  size_t early_ = 0;  // so many bytes of `held_` may not end it
  bool stopped_ = false;
};

}  // namespace lathe
