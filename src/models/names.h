// Foreign parameter names and layouts, per container. One table, read both ways.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "core/json.h"
#include "io/checkpoint.h"
#include "quant/packing.h"

namespace lathe {

// A parameter of the graph: where its bytes are called something else or lie in another order.
struct Binding {
  std::string stored;                              // the checkpoint's name
  std::function<Weight(const Weight&)> transform;  // empty: as it is
  Shape shape = {};                                // of what is a part of the stored one; empty: all of it
};

// Canonical (Hugging Face) name -> binding, for everything the checkpoint holds. Unknown names map to
// themselves.
std::map<std::string, Binding, std::less<>> bind_names(const Checkpoint&);

// The way back: what GGUF calls a canonical parameter, and how its rows lie there. InputError where GGUF has
// no such parameter.
Binding gguf_binding(std::string_view canonical, const Json& config);

}  // namespace lathe
