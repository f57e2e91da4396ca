// The built-in model, loaded once per test program.
#pragma once

#include "models/model.h"
#include "text/tokenizer.h"

namespace lathe::testing_support {

struct Builtin {
  Checkpoint checkpoint = Checkpoint::open(resolve_model("builtin"));
  Model model = load(checkpoint);
  Tokenizer tokenizer = load_tokenizer(checkpoint);
};
inline const Builtin& builtin() {
  static const Builtin loaded;
  return loaded;
}

}  // namespace lathe::testing_support
