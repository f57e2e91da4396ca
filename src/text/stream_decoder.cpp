#include "text/pipeline.h"
#include "text/utf8.h"

namespace lathe {

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

std::string StreamDecoder::decode(std::span<const int32_t> ids) const {
  return tokenizer_.pipeline_->decode(ids, skip_special_tokens_, Repair::later);
}

// A decoder may treat the first token of a text differently (drop its space). So what a token adds is found
// by decoding it behind the last token that gave text, and taking off what is out already.
std::string StreamDecoder::push(int32_t id) {
  const std::string alone = decode(std::span(&id, 1));
  if (tokenizer_.token(id).empty() || (skip_special_tokens_ && tokenizer_.is_special(id))) return {};
  window_.push_back(id);
  const std::string text = decode(window_);
  if (text.size() < emitted_) return {};
  const std::string_view fresh = std::string_view(text).substr(emitted_);
  const std::string_view whole = fresh.substr(0, complete_utf8(fresh));
  if (whole.size() == fresh.size() && !alone.empty()) {
    window_ = {id};
    emitted_ = alone.size();
  } else {
    emitted_ += whole.size();
  }
  return repair_utf8(whole);
}

std::string StreamDecoder::finish() {
  const std::string text = decode(window_);
  const std::string rest = repair_utf8(std::string_view(text).substr(std::min(emitted_, text.size())));
  window_.clear();
  emitted_ = 0;
  return rest;
}

}  // namespace lathe
