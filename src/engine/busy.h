// Too much waits already: try again later.
#pragma once

#include "core/error.h"

namespace lathe {

class Busy : public Error {
 public:
  using Error::Error;
};

}  // namespace lathe
