#include "engine/stop_text.h"

#include <algorithm>
#include <utility>

namespace lathe {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string StopText::push(std::string_view piece, bool may_stop) {
  if (stopped_) return {};
  held_ += piece;
  if (!may_stop) early_ = held_.size();
  size_t begin = std::string::npos, end = std::string::npos;  // of the first that is complete
  for (const std::string& stop : stops_)
    if (const size_t at = held_.find(stop, early_ < stop.size() ? 0 : early_ - stop.size() + 1);
        at != std::string::npos)
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        begin = at;
        end = at + stop.size();
        matched_ = stop;
      }
  stopped_ = begin != std::string::npos;
  if (!stopped_) {
    size_t most = 0;  // bytes at the end that may begin a stop string
    for (const std::string& stop : stops_)
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > most; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) {
          most = n;
          break;
        }
    begin = held_.size() - most;
  }
  std::string shown = held_.substr(0, begin);
  held_.erase(0, begin);
  early_ -= std::min(early_, begin);
  return shown;
}

std::string StopText::finish() {
  if (stopped_) return {};
  return std::exchange(held_, {});
}

}  // namespace lathe
