#pragma once
// The models of `sheaf bench convergence`: one of every family with experts, as small as its features allow.
#include <string>
#include <vector>

namespace sheaf {

struct TinyModel {
  const char* family;    // model_type
  const char* shows;     // what it has of the family's features
  const char* config;    // of config.json, what differs from kTinyDefaults
  double balance_rate = 0;
};

// Keys of every config.json; a null in a model's own takes a key away.
extern const char* const kTinyDefaults;
const std::vector<TinyModel>& tiny_models();
std::vector<std::string> tiny_families();

// Those that are named, all if none is. UserError: an unknown name.
std::vector<TinyModel> chosen_tiny_models(const std::vector<std::string>& families);

}    // namespace sheaf
