#pragma once
#include <string>

namespace sheaf {

// One file of a corpus. With a weight (all files of a corpus, or none): its share of the rows, of the sum of all weights.
struct CorpusFile {
  std::string path;
  double weight = 0;    // 0: none given
  bool operator==(const CorpusFile&) const = default;
};

}    // namespace sheaf
