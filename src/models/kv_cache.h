// The numbers that a model's keys and values are, and the scales that come with it: attributes and parameters
// of its attentions (op::Attention::cache). Whoever runs the graph rounds to them, whoever saves it writes
// them.
#pragma once

#include <string>

#include "models/model.h"

namespace lathe {

// "<scope>.k_scale" and ".v_scale" of an attention.
std::string k_scale_of(const Node& attention);
std::string v_scale_of(const Node& attention);

// Puts a scheme on an attention, in place of what it had; the weights of its scales are the caller's. Returns
// the node that took its place.
NodeId set_cache(Graph&, NodeId attention, const CacheScheme&);

// What the checkpoint says. Scales that it should have and has not are 1, the ecosystem's default, with a
// warning: their weights are in the model already. InputError on scales that fit no attention.
void add_cache(Model&, const Checkpoint&);

bool is_cache_scale(const Graph&, std::string_view param);
// InputError where a scale is not above 0 or not a normal number.
void require_scales(const Weight&, std::string_view where);

// What the graph says, for who writes it. InputError where layers differ: no config can say that.
CacheScheme cache_scheme(const Graph&);

// The model with keys and values as floats, for `format`, which has no place for their scales: warns of it.
Model without_cache(const Model&, std::string_view format);

}  // namespace lathe
