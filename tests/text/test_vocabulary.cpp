#include <gtest/gtest.h>

#include "core/rng.h"
#include "text/hash_map.h"
#include "text/vocabulary.h"

namespace lathe {
namespace {

TEST(Vocabulary, FindsBothWays) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.find("a"), -1);
  for (int32_t id = 0; id < 5000; ++id) {
    ASSERT_EQ(vocabulary.add("token" + std::to_string(id), id * 3), Vocabulary::Added::ok);
  }
  EXPECT_EQ(vocabulary.size(), 4999 * 3 + 1);
  for (int32_t id = 0; id < 5000; ++id) {
    ASSERT_EQ(vocabulary.find("token" + std::to_string(id)), id * 3);
    ASSERT_EQ(vocabulary.token(id * 3), "token" + std::to_string(id));
  }
  EXPECT_FALSE(vocabulary.contains(1));
  EXPECT_FALSE(vocabulary.contains(-1));
  EXPECT_FALSE(vocabulary.contains(4999 * 3 + 1));
  EXPECT_EQ(vocabulary.token(1), "");
  EXPECT_EQ(vocabulary.find("token5000"), -1);
}

TEST(Vocabulary, RefusesDuplicates) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.add("a", 0), Vocabulary::Added::ok);
  EXPECT_EQ(vocabulary.add("b", 0), Vocabulary::Added::duplicate_id);
  EXPECT_EQ(vocabulary.add("a", 1), Vocabulary::Added::duplicate_token);
  EXPECT_EQ(vocabulary.size(), 1);
}

TEST(HashMap, KeepsTheLastValue) {
  HashMap<uint64_t> map;
  EXPECT_EQ(map.find(1), nullptr);
  Rng rng(1);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t key = rng.below(3000);
    map[key] = key * 7;
  }
  for (uint64_t key = 0; key < 3000; ++key) {
    if (const uint64_t* value = map.find(key)) {
      ASSERT_EQ(*value, key * 7);
    }
  }
  EXPECT_EQ(map.find(3000), nullptr);
}

}  // namespace
}  // namespace lathe
