#include "server/embeddings.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <openssl/evp.h>

#include "engine/embedder.h"
#include "server/api_error.h"
#include "server/completion_request.h"
#include "server/completions.h"
#include "server/not_done.h"
#include "server/reply.h"

namespace lathe {
namespace {

constexpr size_t most_documents = 1024;

Embedder& embedder(const Service& service) {
  if (!service.embedder)
    throw ApiError(501, "not_supported_error", "this server was started without --embeddings");
  return *service.embedder;
}

// Little-endian f32, as OpenAI's own client asks for.
std::string base64(const std::vector<float>& vector) {
  std::vector<unsigned char> bytes(vector.size() * sizeof(float));
  std::memcpy(bytes.data(), vector.data(), bytes.size());
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(),
                                static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

// The first so many numbers, of length 1 again (Matryoshka representations, arXiv 2205.13147).
std::vector<float> shortened(std::vector<float> v, size_t dimensions) {
  if (dimensions >= v.size()) return v;
  v.resize(dimensions);
  double squares = 0;
  for (const float x : v) squares += static_cast<double>(x) * static_cast<double>(x);
  if (squares > 0)
    for (float& x : v) x = static_cast<float>(static_cast<double>(x) / std::sqrt(squares));
  return v;
}

size_t count(const std::vector<std::vector<int32_t>>& texts) {
  size_t all = 0;
  for (const auto& text : texts) all += text.size();
  return all;
}

void submit(Service& service, std::vector<std::vector<int32_t>> texts,
            const std::shared_ptr<HttpExchange>& exchange,
            std::function<Json(const std::vector<std::vector<float>>&)> answer) {
  Embedder& e = embedder(service);
  const uint64_t id =
      e.submit(std::move(texts), [exchange, answer = std::move(answer)](const Embedder::Result& r) {
        if (r.error.empty()) return exchange->send(200, "application/json", json_text(answer(r.vectors)));
        const ApiError error = r.refused ? ApiError::bad_request(r.error) : ApiError::internal();
        exchange->send(error.status(), "application/json", json_text(error.body()));
      });
  exchange->on_gone([&e, id] { e.cancel(id); });
}

// Strings, or objects with "text".
std::vector<std::string> documents_of(const Fields& f) {
  const Json& given = f.at("documents");
  if (!given.is_array() || given.empty() || given.size() > most_documents)
    throw ApiError::bad_request(fmt::format("documents: expected a list of 1 to {}", most_documents),
                                "documents");
  std::vector<std::string> all;
  for (const Json& one : given) {
    const Json* text = one.is_object() ? Fields(one, "documents").find("text") : &one;
    if (!text || !text->is_string())
      throw ApiError::bad_request("documents: expected strings, or objects with a text", "documents");
    all.push_back(text->get<std::string>());
  }
  return all;
}

}  // namespace

void embed(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  refuse_not_done(f, Api::embeddings);
  const Embedder& e = embedder(service);
  require_model(service, f);
  const std::string format = f.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    throw ApiError::bad_request("encoding_format: expected float or base64", "encoding_format");
  const auto dimensions =
      static_cast<size_t>(f.integer("dimensions", 1, e.dimensions()).value_or(e.dimensions()));
  auto texts = parse_prompts(service, f, "input");
  const size_t tokens = count(texts);
  exchange->annotate({{"model", service.model}, {"prompt_tokens", tokens}});
  submit(service, std::move(texts), exchange, [=, &service](const std::vector<std::vector<float>>& vectors) {
    Json data = Json::array();
    for (size_t i = 0; i < vectors.size(); ++i) {
      const std::vector<float> v = shortened(vectors[i], dimensions);
      data.push_back({{"object", "embedding"},
                      {"index", i},
                      {"embedding", format == "float" ? Json(v) : Json(base64(v))}});
    }
    return Json{{"object", "list"},
                {"data", std::move(data)},
                {"model", service.model},
                {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
  });
}

void rerank(Service& service, const Json& body, std::shared_ptr<HttpExchange> exchange) {
  const Fields f(body);
  refuse_not_done(f, Api::embeddings);
  embedder(service);
  require_model(service, f);
  const auto query = f.text("query");
  if (!query) throw ApiError::bad_request("query: expected a string, found none", "query");
  const std::vector<std::string> documents = documents_of(f);
  const auto most = static_cast<size_t>(f.integer("top_n", 1, INT64_MAX).value_or(INT64_MAX));
  const bool with_text = f.boolean("return_documents", true);
  std::vector<std::vector<int32_t>> texts = {service.tokenizer.encode(*query)};
  for (const std::string& text : documents) texts.push_back(service.tokenizer.encode(text));
  const size_t tokens = count(texts);
  exchange->annotate({{"model", service.model}, {"prompt_tokens", tokens}});
  submit(service, std::move(texts), exchange, [=, &service](const std::vector<std::vector<float>>& vectors) {
    std::vector<double> scores;
    for (size_t i = 1; i < vectors.size(); ++i)
      scores.push_back(std::inner_product(vectors[i].begin(), vectors[i].end(), vectors[0].begin(), 0.0));
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    Json results = Json::array();
    for (size_t i = 0; i < std::min(most, order.size()); ++i) {
      Json one = {{"index", order[i]}, {"relevance_score", scores[order[i]]}};
      if (with_text) one["document"] = {{"text", documents[order[i]]}};
      results.push_back(std::move(one));
    }
    return Json{{"id", random_id("rerank-")},
                {"model", service.model},
                {"results", std::move(results)},
                {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
  });
}

}  // namespace lathe
