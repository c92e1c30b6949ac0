#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>

#include "rows.h"
#include "scratch.h"

namespace sparse_vit {

namespace {

using Key = std::uint32_t;

// Of scores of one type: how their bits become unsigned integers of the same order, none of them 0.
template <Type type>
struct Keys {
  using Bits = std::conditional_t<type == Type::float32, std::uint32_t, std::uint16_t>;
  static constexpr std::uint32_t infinity = type == Type::float16 ? 0x7c00u << 13 : 0x7f800000u;

  static std::uint32_t word(Bits bits) {
    if constexpr (type == Type::float32) return bits;
    if constexpr (type == Type::bfloat16) return static_cast<std::uint32_t>(bits) << 16;
    return (bits & 0x8000u) << 16 | (bits & 0x7fffu) << 13;
  }

  static bool is_nan(std::uint32_t word) { return (word & 0x7fffffffu) > infinity; }

  static Key of(std::uint32_t word) {
    if (is_nan(word)) word = 0x80000000u | infinity;
    if ((word & 0x7fffffffu) == 0) word = 0;
    return word >> 31 != 0 ? ~word : word | 0x80000000u;
  }
};

struct Selection {
  std::int64_t images, tokens, image_stride, token_stride, min_keep, max_keep, prefix;
  std::uint8_t* mask;
  std::int64_t* indices;
  std::int32_t* cu_seqlens;

  std::int64_t length() const { return prefix + tokens; }
};

template <Type type>
void read_keys(const Selection& s, const void* scores, std::int64_t image, Key* keys) {
  const auto* row =
      static_cast<const typename Keys<type>::Bits*>(scores) + image * s.image_stride;
  for (std::int64_t i = 0; i < s.tokens; ++i) {
    keys[i] = Keys<type>::of(Keys<type>::word(row[i * s.token_stride]));
  }
}

// Writes what one image keeps: the keys from `least` on where they are `count`, otherwise so many of
// the largest. `keys` has room for twice the tokens.
void keep(const Selection& s, std::int64_t image, std::int64_t count, Key least, Key* keys) {
  const auto reached = [&](Key bound) {
    return std::count_if(keys, keys + s.tokens, [=](Key key) { return key >= bound; });
  };
  Key last = least - 1;
  if (count == s.tokens) {
    last = 0;
  } else if (reached(least) != count) {
    Key* order = std::copy_n(keys, s.tokens, keys + s.tokens) - s.tokens;
    std::nth_element(order, order + count - 1, order + s.tokens, std::greater<Key>());
    last = order[count - 1];
  }
  std::int64_t ties = count - reached(last + 1);
  std::uint8_t* mask = s.mask + image * s.length();
  std::int64_t* place = s.indices + s.cu_seqlens[image];
  std::int64_t row = image * s.length();
  for (std::int64_t p = 0; p < s.prefix; ++p) {
    mask[p] = 1;
    *place++ = row++;
  }
  for (std::int64_t i = 0; i < s.tokens; ++i, ++row) {
    const bool kept = keys[i] > last || (keys[i] == last && ties-- > 0);
    mask[s.prefix + i] = kept;
    if (kept) *place++ = row;
  }
}

void fill_with_dropped(const Selection& s) {
  std::int64_t* place = s.indices + s.cu_seqlens[s.images];
  const std::int64_t* end = s.indices + s.images * (s.prefix + s.max_keep);
  for (std::int64_t row = 0; place < end; ++row) {
    if (s.mask[row] == 0) *place++ = row;
  }
}

template <Type type>
void select(const Selection& s, const void* scores, std::uint32_t threshold) {
  // No key reaches what is not a number.
  const Key least = Keys<type>::is_nan(threshold) ? ~Key{0} : Keys<type>::of(threshold);
  const bool exact = s.min_keep == s.max_keep;
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / s.tokens);
  const auto keys_of = [&](std::int64_t image) {
    Key* keys = reinterpret_cast<Key*>(scratch(2 * s.tokens));
    read_keys<type>(s, scores, image, keys);
    return keys;
  };
  s.cu_seqlens[0] = 0;
  if (!exact) {
    at::parallel_for(0, s.images, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t image = begin; image < end; ++image) {
        const Key* keys = keys_of(image);
        const std::int64_t count =
            std::count_if(keys, keys + s.tokens, [=](Key key) { return key >= least; });
        s.cu_seqlens[image + 1] =
            static_cast<std::int32_t>(std::clamp(count, s.min_keep, s.max_keep) + s.prefix);
      }
    });
  }
  for (std::int64_t image = 0; image < s.images; ++image) {
    const std::int64_t kept = exact ? s.prefix + s.max_keep : s.cu_seqlens[image + 1];
    s.cu_seqlens[image + 1] = static_cast<std::int32_t>(s.cu_seqlens[image] + kept);
  }
  at::parallel_for(0, s.images, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t image = begin; image < end; ++image) {
      const std::int64_t kept = s.cu_seqlens[image + 1] - s.cu_seqlens[image];
      keep(s, image, kept - s.prefix, least, keys_of(image));
    }
  });
}

}  // namespace

void select_tokens(const void* scores, Type type, std::int64_t images, std::int64_t tokens,
                   std::int64_t image_stride, std::int64_t token_stride, std::int64_t threshold,
                   std::int64_t min_keep, std::int64_t max_keep, std::int64_t prefix, bool padded,
                   std::uint8_t* mask, std::int64_t* indices, std::int32_t* cu_seqlens) {
  const Selection s{images, tokens, image_stride, token_stride, min_keep,
                    max_keep, prefix, mask, indices, cu_seqlens};
  const auto bits = static_cast<std::uint32_t>(threshold);
  if (type == Type::float32) select<Type::float32>(s, scores, bits);
  if (type == Type::bfloat16) select<Type::bfloat16>(s, scores, Keys<Type::bfloat16>::word(bits));
  if (type == Type::float16) select<Type::float16>(s, scores, Keys<Type::float16>::word(bits));
  if (padded) fill_with_dropped(s);
}

}  // namespace sparse_vit
