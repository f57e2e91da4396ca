// Weights packed before plans are made, for several plans of one model.
#pragma once

#include "core/cpu.h"
#include "models/model.h"

namespace lathe {

// Every matrix of a linear layer as the kernel that plans choose for it reads it, so that plans compiled of
// this model (or of parts of it) use the same bytes and repack nothing. Matrices that another node reads too,
// as a head tied to the embedding is, stay as they are stored, and so do those that want columns of their
// input in another order or multiplied (quant/columns.h). No number changes.
void pack_model(Model&, int threads, uint32_t isa = allowed_features());  // threads 0: the physical cores

}  // namespace lathe
