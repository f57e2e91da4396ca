// Texts to vectors: a model up to its head, the rows of a text pooled into one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/model.h"

namespace lathe {

enum class Pooling : uint8_t { mean, last, cls };  // of all tokens; the last token; the first

struct EmbedderOptions {
  int threads = 0;      // 0: physical cores
  int64_t longest = 0;  // tokens of a text; 0: 2048, or the model's context where that is less
  Pooling pooling = Pooling::mean;
  size_t waiting = 256;  // requests that wait; more are refused
};

class Embedder {
 public:
  // Packs the weights for itself, beside an Engine a second time: pack_model() makes them one.
  Embedder(const Model&, const EmbedderOptions&);
  ~Embedder();

  // Unit vectors of dimensions() numbers, one per text; or why there are none.
  struct Result {
    std::vector<std::vector<float>> vectors;
    std::string error;
    bool refused = false;  // by the request's fault
  };
  using Done = std::function<void(const Result&)>;
  // From any thread; `done` is called on the thread that steps; what it throws is logged. InputError when a
  // text is empty, longer than longest() or has unknown tokens; Busy when too many requests wait.
  uint64_t submit(std::vector<std::vector<int32_t>> texts, Done);
  void cancel(uint64_t request);  // from any thread; no other text of it is begun, and `done` is not called

  // Texts of the oldest request, as many as a run has rows for, or at most so many; false when there was
  // nothing to do. From one thread.
  bool step(size_t most_texts = SIZE_MAX);

  int64_t dimensions() const;
  int64_t longest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lathe
