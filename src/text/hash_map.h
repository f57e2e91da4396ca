// An open-addressing hash map from 64-bit keys: one flat array, linear probing, no deletion.
// Vocabularies and merge tables hold 10^5 entries and are probed for every pair of symbols: with one 16-byte
// slot per entry a probe is one cache line. The seed differs in every process, so no file can be made to
// collide.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace lathe {

inline uint64_t mix_hash(uint64_t x) {
  static const uint64_t seed = std::random_device{}() * 0x9e3779b97f4a7c15ull;
  x ^= seed;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
  return x ^ (x >> 32);
}

template <class Value>
class HashMap {
 public:
  // The key ~0 is reserved.
  const Value* find(uint64_t key) const {
    if (slots_.empty()) return nullptr;
    for (size_t i = mix_hash(key) & mask();; i = (i + 1) & mask()) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

  // The value of `key`, default-made when new.
  Value& operator[](uint64_t key) {
    if ((count_ + 1) * 4 > slots_.size() * 3) rehash(std::max<size_t>(16, slots_.size() * 2));
    Slot& slot = slots_[place(key)];
    count_ += slot.key == kEmpty;
    slot.key = key;
    return slot.value;
  }

  void reserve(size_t count) {
    size_t capacity = 16;
    while (capacity * 3 < count * 4) capacity *= 2;
    if (capacity > slots_.size()) rehash(capacity);
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  size_t mask() const { return slots_.size() - 1; }

  size_t place(uint64_t key) const {
    size_t i = mix_hash(key) & mask();
    while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & mask();
    return i;
  }

  void rehash(size_t capacity) {
    std::vector<Slot> old(capacity);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key != kEmpty) slots_[place(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t count_ = 0;
};

}  // namespace lathe
