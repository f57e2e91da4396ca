#include "server/not_done.h"

#include <algorithm>

#include "server/api_error.h"

namespace lathe {
namespace {

using enum Api;
constexpr int bits(Api api) { return static_cast<int>(api); }
constexpr Api operator|(Api a, Api b) { return static_cast<Api>(bits(a) | bits(b)); }
constexpr bool has(Api all, Api one) { return (bits(all) & bits(one)) != 0; }
constexpr Api texts = chat | completions | responses | messages | llama_cpp;

struct Row {
  Api apis;
  std::string_view path;     // a dot before the name of an object's member
  std::string_view neutral;  // a list of the values that ask for nothing; null does always
};

constexpr Row rows[] = {
    // llama.cpp's samplers, which its chats and completions take as /completion does
    {texts, "mirostat", "[0]"},
    {texts, "dry_multiplier", "[0]"},
    {texts, "xtc_probability", "[0]"},
    {texts, "dynatemp_range", "[0]"},
    {texts, "top_n_sigma", "[-1, 0]"},
    {texts, "lora", "[[]]"},
    // Its own default, in several versions: what is asked for is each sampler's value. Lathe's order is that
    // of engine/sampler.h.
    {llama_cpp, "samplers",
     R"([["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
         ["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
         ["dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"], "edskypmxt", "dkypmxt", []])"},
    {llama_cpp, "n_keep", "[0, -1]"},
    {llama_cpp, "n_discard", "[0]"},
    {llama_cpp, "n_indent", "[0]"},
    {llama_cpp, "min_keep", "[0]"},
    {llama_cpp, "t_max_predict_ms", "[0, -1]"},
    {llama_cpp, "image_data", "[[]]"},
    {llama_cpp, "response_fields", "[[]]"},
    {llama_cpp, "return_progress", "[false]"},
    {llama_cpp, "n", "[1]"},
    {llama_cpp, "n_cmpl", "[1]"},
    {chat | completions, "timings_per_token", "[false]"},
    // vLLM's
    {texts, "use_beam_search", "[false]"},
    {texts, "length_penalty", "[1]"},
    {texts, "early_stopping", "[false]"},
    {texts, "guided_whitespace_pattern", "[]"},
    {texts, "logits_processors", "[[]]"},
    {texts, "prompt_embeds", "[]"},
    {chat | completions, "return_token_ids", "[false]"},
    {chat | completions, "return_tokens_as_token_ids", "[false]"},
    {chat | completions, "spaces_between_special_tokens", "[true]"},
    {chat | completions, "include_reasoning", "[true]"},
    {chat, "chat_template", "[]"},
    {chat, "add_special_tokens", "[false]"},
    {chat, "echo", "[false]"},
    // OpenAI's
    {chat, "modalities", R"([["text"], []])"},
    {chat, "audio", "[]"},
    {chat, "prediction", "[]"},
    {chat, "web_search_options", "[]"},
    {chat, "functions", "[[]]"},
    {chat, "function_call", R"(["none"])"},
    {chat, "verbosity", R"(["medium"])"},
    {chat, "suffix", "[]"},
    {chat, "best_of", "[1]"},
    {responses, "truncation", R"(["disabled"])"},
    {responses, "prompt", "[]"},
    {responses, "max_tool_calls", "[]"},
    {responses, "background", "[false]"},
    {responses, "text.verbosity", R"(["medium"])"},
    // There is no summary of thoughts; "auto" takes what there is.
    {responses, "reasoning.summary", R"(["auto"])"},
    {responses, "reasoning.generate_summary", R"(["auto"])"},
    // Anthropic's
    {messages, "mcp_servers", "[[]]"},
    {messages, "container", "[]"},
    {messages, "context_management", "[]"},
    // Cohere's, Jina's and vLLM's
    {embeddings, "truncate_prompt_tokens", "[]"},
    {embeddings, "normalize", "[true]"},
    {embeddings, "max_chunks_per_doc", "[]"},
    {embeddings, "max_tokens_per_doc", "[]"},
    {embeddings, "rank_fields", "[[]]"},
};

const Json* find(const Fields& f, std::string_view path) {
  const size_t dot = path.find('.');
  const Json* field = f.find(path.substr(0, dot));
  if (dot == std::string_view::npos || !field) return field;
  if (!field->is_object()) return nullptr;  // whoever reads it says so
  const auto it = field->find(path.substr(dot + 1));
  return it == field->end() || it->is_null() ? nullptr : &*it;
}

}  // namespace

void refuse_not_done(const Fields& f, Api api) {
  for (const Row& row : rows) {
    if (!has(row.apis, api)) continue;
    const Json* value = find(f, row.path);
    if (!value) continue;
    const Json neutral = Json::parse(row.neutral);
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    throw ApiError(501, "not_supported_error",
                   fmt::format("{} is not supported{}", row.path,
                               neutral.empty() ? "" : fmt::format(" but for {}", neutral.front().dump())),
                   std::string(row.path));
  }
}

}  // namespace lathe
