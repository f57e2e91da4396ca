#include <gmock/gmock.h>
#include <set>

#include "core/checksum.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace lathe {
namespace {

TEST(Tensor, ElementsRefusesNegativeAndHugeShapes) {
  EXPECT_EQ(elements({}), 1);
  EXPECT_EQ(elements({3, 4}), 12);
  EXPECT_EQ(elements({0, 5}), 0);
  EXPECT_THROW(elements({-1}), Error);
  EXPECT_THROW(elements({1ll << 40, 1ll << 40}), Error);
}

TEST(Tensor, ViewsShareBytesAndCheckTheElementSize) {
  Tensor t = Tensor::of<float>(DType::f32, {2, 2}, std::array{1.f, 2.f, 3.f, 4.f});
  Tensor view = t;
  view.as_mutable<float>()[3] = 5;
  EXPECT_THAT(t.as<float>(), testing::ElementsAre(1, 2, 3, 5));
  EXPECT_THROW(t.as<uint16_t>(), Error);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.storage.data) % 64, 0u);
}

TEST(Tensor, SomeElementsAreAViewThatStaysWithin) {
  std::vector<float> values(24);
  for (size_t i = 0; i < 24; ++i) values[i] = static_cast<float>(i);
  const Tensor all = Tensor::of<float>(DType::f32, {2, 4, 3}, values);
  const Tensor row = all.view(15, {3}, {1});
  EXPECT_TRUE(row.strides.empty());
  EXPECT_THAT(row.as<float>(), testing::ElementsAre(15, 16, 17));
  const Tensor odd = all.view(15, {2, 3}, {6, 1});  // rows 1 and 3 of the second matrix
  EXPECT_EQ(odd.strides, (Shape{6, 1}));
  EXPECT_EQ(odd.bytes(), 24u);
  EXPECT_EQ(odd.storage.bytes, 36u);
  EXPECT_EQ(odd.storage.data, all.storage.data + 60);
  EXPECT_THROW(odd.as<float>(), Error);
  EXPECT_THROW(odd.view(0, {1}, {1}), Error);
  EXPECT_THROW(all.view(16, {2, 3}, {6, 1}), Error);  // one past the end
  EXPECT_THROW(all.view(-1, {3}, {1}), Error);
  EXPECT_THROW(all.view(24, {1}, {1}), Error);
  EXPECT_THROW(all.view(0, {3}, {0}), Error);
  EXPECT_THROW(all.view(0, {0}, {1}), Error);
  EXPECT_THROW(all.view(0, {3, 1}, {1ll << 62, 1}), Error);
  EXPECT_THROW(all.view(0, {3}, {1, 1}), Error);
}

TEST(Hash, KnownAnswers) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Checksum, KnownAnswers) {  // of `xxhsum -H2`
  EXPECT_EQ(checksum({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(checksum(std::as_bytes(std::span("abc", 3))), "06b05ab6733a618578af5f94892f3950");
}

// Lengths about its blocks of 64 bytes; every single byte and every pair of equal changes of the highest bit
// (which a chain of plain products would lose) counts.
TEST(Checksum, ChangesWithWhateverChanges) {
  const auto of = [](std::string_view bytes) { return checksum(std::as_bytes(std::span(bytes))); };
  std::set<std::string> seen;
  for (size_t n : {0, 1, 7, 8, 63, 64, 65, 128, 200})
    EXPECT_TRUE(seen.insert(of(std::string(n, '\0'))).second);
  const std::string bytes(200, 'x');
  EXPECT_EQ(of(bytes), of(bytes));
  EXPECT_TRUE(seen.insert(of(bytes)).second);
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(changed[i] ^ 0x80);
    EXPECT_TRUE(seen.insert(of(changed)).second) << i;
    for (size_t j = i + 1; j < bytes.size(); ++j) {
      std::string twice = changed;
      twice[j] = static_cast<char>(twice[j] ^ 0x80);
      EXPECT_TRUE(seen.insert(of(twice)).second) << i << ' ' << j;
    }
  }
}

TEST(Rng, StreamIsFixed) {  // SplitMix64's published first numbers for seed 1234567
  Rng rng(1234567);
  EXPECT_EQ(rng.next(), 6457827717110365317ull);
  EXPECT_EQ(rng.next(), 3203168211198807973ull);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(rng.below(7), 7u);
}

}  // namespace
}  // namespace lathe
