// JSON schemas (draft 7 and 2020-12, https://json-schema.org) as grammars: the texts of the instances that a
// schema accepts, written by a model member by member.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"
#include "text/grammar.h"

namespace lathe {

enum class SchemaDialect { draft7, draft2020_12 };

// What a keyword does here. `refused`, and every word that is not in the table, is an InputError that names
// the place; so is what a note excludes. Nothing that constrains is ever ignored.
struct SchemaKeyword {
  enum class Use { applied, annotation, refused };
  std::string_view name;
  Use use;
  std::string_view note;  // limits of what is applied, or why not
};
std::span<const SchemaKeyword> schema_keywords();

// Texts of instances: members in the order in which `properties` (then `required`) names them, then others;
// integers without fraction or exponent; white space where JSON allows it, at most 64 bytes in a row; names
// of members and fixed strings in their shortest form. A name that `properties` does not have may come twice:
// JSON allows it, and a grammar cannot count names. InputError naming `where` and the place in the schema.
// `dialect` is meant where "$schema" is not given.
Grammar json_schema(const Json& schema, std::string_view where = "schema",
                    SchemaDialect dialect = SchemaDialect::draft2020_12);

// One to `most` instances, `between` each two of them, and `after` behind. Their white space is a blank at
// most: nobody reads them, and a model that is made to write JSON likes to go on with white space.
struct Repeated {
  std::string between = {}, after = {};
  int64_t most = 1;
};
Grammar json_schemas(const Json& schema, std::string_view where, const Repeated&);

// The text of RFC 8785, but for the order of members, which stays (or is sorted by bytes), and for integers
// of more than 53 bits, which are exact.
std::string canonical_json(const Json&, bool sorted = false);

}  // namespace lathe
