// What holds for every text.
#include <thread>

#include "core/rng.h"
#include "text/tokenizers.h"
#include "text/utf8.h"

namespace lathe {
namespace {

const Tokenizer& builtin() {
  static const Tokenizer tokenizer = Tokenizer::load(source_dir() / "models/builtin/tokenizer.json");
  return tokenizer;
}

std::string random_text(Rng& rng) {
  static constexpr std::string_view kWords[] = {"hello",        " world",     "  ", "\n",
                                                "<|im_start|>", "<|im_end|>", "'s", "123"};
  std::string out;
  for (uint64_t n = rng.below(30); n > 0; --n) {
    switch (rng.below(4)) {
      case 0:
        out += kWords[rng.below(std::size(kWords))];
        break;
      case 1:
        append_utf8(out, static_cast<char32_t>(rng.below(0x80)));
        break;
      case 2:
        append_utf8(out, static_cast<char32_t>(rng.below(0xD800)));
        break;
      case 3:
        append_utf8(out, static_cast<char32_t>(0x10000 + rng.below(0x100000)));
        break;
    }
  }
  return out;
}

TEST(Property, ByteLevelRoundTrips) {
  Rng rng(7);
  for (int i = 0; i < 5000; ++i) {
    const std::string text = random_text(rng);
    for (const bool parse_special : {true, false}) {
      const Ids ids = builtin().encode(text, {.parse_special = parse_special});
      ASSERT_EQ(builtin().decode(ids), text);
      ASSERT_EQ(stream(builtin(), ids), text);
    }
  }
}

TEST(Property, IllFormedTextIsRepaired) {
  Rng rng(8);
  for (int i = 0; i < 5000; ++i) {
    std::string bytes;
    for (uint64_t n = rng.below(20); n > 0; --n) bytes += static_cast<char>(rng.next());
    ASSERT_EQ(builtin().decode(builtin().encode(bytes)), repair_utf8(bytes));
  }
}

TEST(Property, StreamsOfRandomIdsNeverSplitACharacter) {
  Rng rng(9);
  for (int i = 0; i < 500; ++i) {
    Ids ids;
    for (uint64_t n = rng.below(50); n > 0; --n) {
      ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(builtin().vocab_size()))));
    }
    for (const bool skip : {false, true}) {
      StreamDecoder decoder(builtin(), skip);
      std::string out;
      for (const int32_t id : ids) {
        const std::string text = decoder.push(id);
        ASSERT_TRUE(valid_utf8(text));
        out += text;
      }
      ASSERT_EQ(out + decoder.finish(), builtin().decode(ids, skip));
    }
  }
}

TEST(Property, AStreamDoesNotHoldBackWhatIsComplete) {
  // Every byte a token: the character appears with its last byte, not before and not later.
  const Tokenizer tokenizer = parse(bytes_document());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push('a'), "a");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x98), "");
  EXPECT_EQ(decoder.push(0x80), "\U0001F600");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('b'), "\uFFFDb");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.push('c'), "c");  // ready for the next text
}

TEST(Property, AMillionCharactersWithoutABreak) {
  for (const char c : {'a', ' ', '\n', '1', '!'}) {
    const std::string text(1 << 20, c);
    EXPECT_EQ(builtin().decode(builtin().encode(text)), text);
  }
  const std::string mixed = [] {
    Rng rng(10);
    std::string out;
    for (int i = 0; i < 1 << 20; ++i) out += static_cast<char>('a' + rng.below(26));
    return out;
  }();
  EXPECT_EQ(builtin().decode(builtin().encode(mixed)), mixed);
}

TEST(Property, EncodingIsDeterministicAndThreadSafe) {
  Rng rng(11);
  std::string text;
  for (int i = 0; i < 200; ++i) text += random_text(rng);
  const Ids expected = builtin().encode(text);
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { ids = builtin().encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace lathe
