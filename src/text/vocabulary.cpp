#include "text/vocabulary.h"

#include <cstring>

#include "text/hash_map.h"

namespace lathe {

namespace {

uint64_t hash_text(std::string_view text) {
  uint64_t hash = text.size();
  while (text.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    hash = mix_hash(hash ^ word);
    text.remove_prefix(8);
  }
  uint64_t word = 0;
  std::memcpy(&word, text.data(), text.size());
  return mix_hash(hash * 31 ^ word);
}

}  // namespace

// The slot that holds `token`, or the free slot where it belongs.
size_t Vocabulary::place(std::string_view text, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t i = hash & mask;
  while (slots_[i].id >= 0 &&
         (slots_[i].hash != static_cast<uint32_t>(hash >> 32) || token(slots_[i].id) != text)) {
    i = (i + 1) & mask;
  }
  return i;
}

void Vocabulary::rehash(size_t capacity) {
  std::vector<Slot> old(capacity);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id >= 0) slots_[place(token(slot.id), hash_text(token(slot.id)))] = slot;
  }
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  arena_.reserve(bytes);
  tokens_.reserve(tokens);
  size_t capacity = 16;
  while (capacity * 3 < tokens * 4) capacity *= 2;
  if (capacity > slots_.size()) rehash(capacity);
}

Vocabulary::Added Vocabulary::add(std::string_view text, int32_t id) {
  if (contains(id)) return Added::duplicate_id;
  if ((count_ + 1) * 4 > slots_.size() * 3) rehash(std::max<size_t>(16, slots_.size() * 2));
  const uint64_t hash = hash_text(text);
  Slot& slot = slots_[place(text, hash)];
  if (slot.id >= 0) return Added::duplicate_token;
  if (id >= size()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = {arena_.size(), static_cast<uint32_t>(text.size())};
  arena_ += text;
  slot = {static_cast<uint32_t>(hash >> 32), id};
  ++count_;
  return Added::ok;
}

int32_t Vocabulary::find(std::string_view text) const {
  return slots_.empty() ? -1 : slots_[place(text, hash_text(text))].id;
}

}  // namespace lathe
