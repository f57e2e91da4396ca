#include "text/decoder.h"

#include <optional>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace lathe {

namespace {

using Strings = std::vector<std::string>;

// NN of "<0xNN>".
std::optional<unsigned char> byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

}  // namespace

Decoder byte_level_decoder() {
  return [](const Strings& tokens, Repair repair, Budget&) {
    std::string bytes;
    for (const std::string& token : tokens) {
      bytes += characters_to_bytes(token);
    }
    if (repair == Repair::as_reference && !valid_utf8(bytes)) bytes = repair_utf8(bytes);
    return Strings{std::move(bytes)};
  };
}

Decoder byte_fallback_decoder() {
  return [](const Strings& tokens, Repair repair, Budget&) {
    Strings out;
    std::string run;
    const auto end_run = [&] {
      if (run.empty()) return;
      if (repair == Repair::as_reference && !valid_utf8(run)) {
        const size_t count = run.size();
        run.clear();
        for (size_t i = 0; i < count; ++i) run += "\xEF\xBF\xBD";
      }
      out.push_back(std::move(run));
      run.clear();
    };
    for (const std::string& token : tokens) {
      if (const auto byte = byte_token(token)) {
        run += static_cast<char>(*byte);
      } else {
        end_run();
        out.push_back(token);
      }
    }
    end_run();
    return out;
  };
}

Decoder join_decoder(std::string separator) {
  return [separator = std::move(separator)](const Strings& tokens, Repair, Budget& budget) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += separator;
      out += tokens[i];
      budget.check_bytes(out.size());
    }
    return Strings{std::move(out)};
  };
}

Decoder strip_decoder(std::string content, size_t start) {
  return [content = std::move(content), start](Strings tokens, Repair, Budget&) {
    for (std::string& token : tokens) {
      size_t cut = 0;
      for (size_t i = 0; i < start && std::string_view(token).substr(cut).starts_with(content); ++i) {
        cut += content.size();
      }
      token.erase(0, cut);
    }
    return tokens;
  };
}

Decoder replace_decoder(std::string pattern, std::string replacement) {
  return [pattern = std::move(pattern), replacement = std::move(replacement)](Strings tokens, Repair,
                                                                              Budget& budget) {
    for (std::string& token : tokens) {
      token = replace_all(token, pattern, replacement, budget);
      budget.spend_bytes(token.size());
    }
    return tokens;
  };
}

Decoder metaspace_decoder(std::string replacement, bool prepended) {
  return [replacement = std::move(replacement), prepended](Strings tokens, Repair, Budget& budget) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], replacement, i == 0 && prepended ? "" : " ", budget);
    }
    return tokens;
  };
}

}  // namespace lathe
