// What a search found, as one JSON object for scripts, a table for the terminal and (page.h) a page for
// people.
#pragma once

#include <string>

#include "search/search.h"

namespace lathe {

// What the search itself does not know.
struct ReportContext {
  std::string model, output;  // as given on the command line
  std::string source_hash, result_hash;
  Text calibration, held_out;  // tokens are not read
  bool split = false;          // both are parts of one file
  double seconds = 0;
};

Json make_report(Study&, const SearchResult&, const Constraints&, const ReportContext&);

// One line: what was achieved, or which limit failed by how much.
std::string headline(const SearchResult&);

// Base, uniform formats and the chosen one, measured on the held-out text, and the check against the uniform
// formats.
std::string terminal_table(const SearchResult&);

}  // namespace lathe
