#include <gmock/gmock.h>

#include "core/error.h"
#include "core/hash.h"
#include "eval/dataset.h"
#include "models/model.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

Tokenizer tokenizer() { return Tokenizer::load(source_dir() / "models/builtin/tokenizer.json"); }
fs::path heldout() { return source_dir() / "models/builtin/heldout.txt"; }
fs::path calibration() { return source_dir() / "models/builtin/calibration.txt"; }

fs::path write(const fs::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

TEST(Dataset, ReadsAWholeText) {
  const Text text = read_text(heldout(), tokenizer());
  const std::string bytes = read_text_file(heldout());
  EXPECT_EQ(text.tokens, tokenizer().encode(bytes));
  EXPECT_EQ(text.begin, 0u);
  EXPECT_EQ(text.end, bytes.size());
  EXPECT_EQ(text.sha256, sha256(bytes));
}

TEST(Dataset, ALimitReadsTheSameFirstTokensAndNotMuchMore) {
  const Text all = read_text(heldout(), tokenizer());
  for (const int64_t limit : {2, 100, 5000}) {
    const Text some = read_text(heldout(), tokenizer(), limit);
    ASSERT_EQ(static_cast<int64_t>(some.tokens.size()), limit);
    EXPECT_TRUE(std::equal(some.tokens.begin(), some.tokens.end(), all.tokens.begin())) << limit;
    EXPECT_LT(some.end, static_cast<size_t>(limit) * 8 + 4000);
  }
  EXPECT_EQ(read_text(heldout(), tokenizer(), 1 << 30).tokens, all.tokens);
}

TEST(Dataset, ATextTooShortToScoreIsRefused) {
  const TemporaryDirectory dir;
  const fs::path path = write(dir.path() / "short.txt", "a");
  EXPECT_THAT(
      [&] { read_text(path, tokenizer()); },
      ThrowsMessage<InputError>(HasSubstr("short.txt: expected a text of at least 2 tokens, found 1")));
  EXPECT_THAT([&] { read_text(dir.path() / "none.txt", tokenizer()); },
              ThrowsMessage<InputError>(HasSubstr("none.txt")));
  const fs::path line = write(dir.path() / "line.txt", "one line without an end");
  EXPECT_THROW(split_text(line, tokenizer(), 0.5), InputError);
}

TEST(Dataset, ASplitSharesNoByteAndLosesNone) {
  const auto [first, second] = split_text(heldout(), tokenizer(), 0.7);
  const std::string bytes = read_text_file(heldout());
  EXPECT_EQ(first.begin, 0u);
  EXPECT_EQ(first.end, second.begin);
  EXPECT_EQ(second.end, bytes.size());
  EXPECT_EQ(bytes[first.end - 1], '\n');
  EXPECT_NEAR(static_cast<double>(first.end) / static_cast<double>(bytes.size()), 0.7, 0.05);
  EXPECT_NO_THROW(require_held_out(first, second));
}

TEST(Dataset, HeldOutTextsMayNotShareBytes) {
  const TemporaryDirectory dir;
  const Tokenizer t = tokenizer();
  const Text all = read_text(heldout(), t), some = read_text(heldout(), t, 1000);
  const auto [first, second] = split_text(heldout(), t, 0.5);
  EXPECT_NO_THROW(require_held_out(read_text(calibration(), t), all));

  EXPECT_THROW(require_held_out(all, all), InputError);
  EXPECT_THROW(require_held_out(first, all), InputError);
  EXPECT_THROW(require_held_out(all, second), InputError);
  EXPECT_THROW(require_held_out(some, first), InputError);

  // The same book under another name, whole, cut short or with something in front, is the same book.
  const std::string bytes = read_text_file(heldout());
  const Text copy = read_text(write(dir.path() / "copy.txt", bytes), t);
  const Text part = read_text(write(dir.path() / "part.txt", bytes.substr(0, 20000)), t);
  const Text prefixed = read_text(write(dir.path() / "prefixed.txt", "A preface.\n\n" + bytes), t);
  EXPECT_THAT([&] { require_held_out(copy, all); }, ThrowsMessage<InputError>(HasSubstr("copy.txt")));
  EXPECT_THROW(require_held_out(part, all), InputError);
  EXPECT_THROW(require_held_out(all, prefixed), InputError);
}

}  // namespace
}  // namespace lathe
