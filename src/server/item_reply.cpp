#include "server/item_reply.h"

#include <algorithm>
#include <utility>

#include "server/logprobs.h"

namespace lathe {

using Kind = AnswerPart::Kind;

ItemReply::ItemReply(const Service& service, const Chat& chat, std::shared_ptr<HttpExchange> exchange,
                     bool stream)
    : Reply(service, std::move(exchange), stream, chat.request, 1),
      logprobs_(chat.request.logprobs >= 0),
      answer_(chat) {}

void ItemReply::tell(size_t, const Event& e) {
  if (stream_ && !std::exchange(begun_, true)) {
    start_stream();
    begin();
  }
  if (logprobs_ && is_shown(e)) untold_.push_back(chosen_json(service_, e));
  const std::vector<AnswerPart> parts = answer_.take(e);
  for (const AnswerPart& p : parts) {
    const Kind kind = p.kind == Kind::arguments ? Kind::call : p.kind;
    if (items_.empty() || items_.back().kind != kind || p.kind == Kind::call) {
      if (stream_ && !items_.empty()) closed(items_.size() - 1);
      const bool call = kind == Kind::call;
      const std::string id = call ? answer_.calls[static_cast<size_t>(p.call)].id : std::string();
      items_.push_back({kind, id, call ? p.text : std::string(), {}});
      if (stream_) opened(items_.size() - 1);
    }
    if (p.kind == Kind::call) continue;
    ReplyItem& item = items_.back();
    // Between messages of one item in channels there is a blank line, before another item there is none.
    const size_t blank = item.text.empty() && items_.size() > 1 ? p.text.find_first_not_of('\n') : 0;
    const std::string text = p.text.substr(std::min(blank, p.text.size()));
    item.text += text;
    const Json logprobs = std::exchange(untold_, Json::array());
    if (kind == Kind::text) item.logprobs.insert(item.logprobs.end(), logprobs.begin(), logprobs.end());
    if (stream_) more(items_.size() - 1, text, logprobs);
  }
  if (e.token >= 0 && !parts.empty() && parts.back().kind == Kind::thought) ++thought_tokens_;
  if (e.finish == Finish::none) return;
  last_ = e;
  if (stream_ && !items_.empty()) closed(items_.size() - 1);
}

void ItemReply::end() {
  ended();
  if (stream_) exchange_->finish();
}

}  // namespace lathe
