// Order, memory and failures of what is written while more is made.
#include <future>
#include <gtest/gtest.h>

#include "compress/save.h"
#include "compress/write_behind.h"
#include "core/error.h"

namespace lathe {
namespace {

PlannedEntry entry(int64_t rows) {
  const Numerics n = Numerics::integer(4, 32, false);
  return {"w", n, &storage_packing(n), {rows, 64}};
}
Weight made(WriteBehind& behind, const PlannedEntry& e) {
  Weight spare = behind.spare_for(e);
  return spare.packing ? std::move(spare) : make_weight(e.numerics, *e.packing, e.shape);
}

TEST(WriteBehind, WritesInOrderAndGivesBackTheMemoryOfWhatWasWritten) {
  std::vector<std::string> names;
  const std::byte* first = nullptr;
  std::promise<void> written;
  WriteBehind behind([&](const std::string& name, const Weight& w) {
    names.push_back(name);
    if (name != "0") return;
    first = w.parts[0].storage.data;
    written.set_value();
  });
  const PlannedEntry e = entry(32), other = entry(64);
  behind.push("0", made(behind, e), false);
  written.get_future().wait();
  // The writer gives it back a moment after it has written it.
  Weight again;
  for (int i = 0; i < 1000 && !again.packing; ++i) {
    again = behind.spare_for(e);
    if (!again.packing) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(again.packing);
  EXPECT_EQ(again.parts[0].storage.data, first);
  EXPECT_FALSE(behind.spare_for(other).packing) << "another shape";
  for (int i = 1; i < 100; ++i) behind.push(std::to_string(i), made(behind, e), i % 3 == 0);
  behind.finish();
  ASSERT_EQ(names.size(), 100u);
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(names[i], std::to_string(i));
}

TEST(WriteBehind, AFailureStopsWhoeverMakesOrFinishes) {
  WriteBehind behind([](const std::string&, const Weight&) { fail("the disk is full"); });
  const PlannedEntry e = entry(32);
  behind.push("0", made(behind, e), false);
  EXPECT_THROW(behind.finish(), Error);
  EXPECT_THROW(behind.spare_for(e), Error);
}

TEST(WriteBehind, EndsWithoutFinish) {  // a lost wake-up would be the time limit's to find
  std::promise<void> go;
  WriteBehind behind([wait = go.get_future().share()](const std::string&, const Weight&) { wait.wait(); });
  for (int i = 0; i < 10; ++i) behind.push(std::to_string(i), made(behind, entry(32)), false);
  go.set_value();
}

}  // namespace
}  // namespace lathe
