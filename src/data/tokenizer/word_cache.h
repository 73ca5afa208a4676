#pragma once
// Ids of words that were encoded before. Bounded: when it is full, it starts anew.
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace sheaf {

class WordCache {
 public:
  static constexpr std::size_t kMaxWord = 255;    // bytes of a word that is kept

  static std::uint64_t hash(std::string_view word) {
    std::uint64_t h = word.size() * 0x9E3779B97F4A7C15u;
    const char* at = word.data();
    std::size_t left = word.size();
    for (; left >= 8; left -= 8, at += 8) h = mixed(h, load(at, 8));
    if (left) h = mixed(h, load(at, left));
    return h ^ h >> 32;
  }

  // The ids of the word; data() is nullptr if it is not there. Valid until the next insert.
  std::span<const std::int32_t> find(std::string_view word, std::uint64_t hash) const {
    for (std::size_t at = hash & (kSlots - 1);; at = (at + 1) & (kSlots - 1)) {
      const Slot& slot = slots_[at];
      if (slot.word_size == 0) return {};
      if (slot.tag != static_cast<std::uint32_t>(hash >> 32) || slot.word_size != word.size()) continue;
      const std::int32_t* ids = arena_.data() + slot.begin;
      if (std::memcmp(ids + slot.id_count, word.data(), word.size()) == 0) return {ids, slot.id_count};
    }
  }
  // The word is not there, not empty, and at most kMaxWord bytes; so it has at most kMaxWord ids.
  void insert(std::string_view word, std::uint64_t hash, std::span<const std::int32_t> ids) {
    const std::size_t word_ints = (word.size() + 3) / 4;
    if (used_ >= kSlots / 2 || arena_.size() + ids.size() + word_ints > kArena) clear();
    std::size_t at = hash & (kSlots - 1);
    while (slots_[at].word_size != 0) at = (at + 1) & (kSlots - 1);
    slots_[at] = {static_cast<std::uint32_t>(arena_.size()), static_cast<std::uint32_t>(hash >> 32),
                  static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(ids.size())};
    arena_.insert(arena_.end(), ids.begin(), ids.end());
    arena_.resize(arena_.size() + word_ints);
    std::memcpy(arena_.data() + arena_.size() - word_ints, word.data(), word.size());
    ++used_;
  }

 private:
  static constexpr std::size_t kSlots = 1 << 17;    // 12 bytes each
  static constexpr std::size_t kArena = 1 << 20;    // integers: ids of a word, then its bytes

  struct Slot {
    std::uint32_t begin = 0, tag = 0;    // in the arena; upper half of the hash
    std::uint16_t word_size = 0, id_count = 0;
  };

  static std::uint64_t load(const char* at, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, size);
    return value;
  }
  static std::uint64_t mixed(std::uint64_t h, std::uint64_t value) {
    h = (h ^ value) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
  }
  void clear() {
    slots_.assign(kSlots, {});
    arena_.clear();
    used_ = 0;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(kSlots);
  std::vector<std::int32_t> arena_;
  std::size_t used_ = 0;
};

}    // namespace sheaf
