#include "compress/write_behind.h"

namespace lathe {

WriteBehind::WriteBehind(Write write) : write_(std::move(write)), thread_([this] { run(); }) {}

WriteBehind::~WriteBehind() {
  if (thread_.joinable()) close(true);
}

Weight WriteBehind::spare_for(const PlannedEntry& entry) {
  const size_t bytes = packed_bytes(entry.numerics, *entry.packing, entry.shape);
  std::unique_lock lock(mutex_);
  for (;; changed_.wait(lock)) {
    if (failure_) std::rethrow_exception(failure_);
    // The one that was written last: more of it is in the caches.
    for (auto w = spares_.rbegin(); w != spares_.rend(); ++w) {
      if (w->numerics != entry.numerics || w->packing != entry.packing || w->shape != entry.shape) continue;
      Weight spare = std::move(*w);
      spares_.erase(std::next(w).base());
      return spare;
    }
    const auto is_room = [&] { return alive_ < 2 || bytes_ + bytes <= most_bytes; };
    for (; !is_room() && !spares_.empty(); spares_.pop_front()) {
      --alive_;
      bytes_ -= spares_.front().bytes();
    }
    if (!is_room()) continue;
    ++alive_;
    bytes_ += bytes;
    return {};
  }
}

void WriteBehind::push(std::string name, Weight weight, bool mapped) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({std::move(name), std::move(weight), mapped});
  changed_.notify_all();
}

void WriteBehind::finish() {
  close(false);
  if (failure_) std::rethrow_exception(failure_);
}

void WriteBehind::close(bool drop) {
  {
    const std::lock_guard lock(mutex_);
    if (drop) queue_.clear();
    closed_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void WriteBehind::run() try {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closed_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    write_(item.name, item.weight);
    lock.lock();
    if (!item.mapped) spares_.push_back(std::move(item.weight));
    changed_.notify_all();
  }
} catch (...) {
  const std::lock_guard lock(mutex_);
  failure_ = std::current_exception();
  changed_.notify_all();
}

}  // namespace lathe
