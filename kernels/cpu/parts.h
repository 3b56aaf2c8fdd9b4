// Counts cut into parts whose size the compiler knows.
#pragma once

#include <type_traits>
#include <utility>

#include "simd.h"

namespace minibert {

inline int rounded_up(int count, int step) { return (count + step - 1) / step * step; }

template <int most, class Task>
MINIBERT_INLINE void with_size(int size, int first, const Task& task) {
    if constexpr (most > 0) {
        if (size == most)
            task(first, std::integral_constant<int, most>());
        else
            with_size<most - 1>(size, first, task);
    }
}

// task of each number below `count`.
template <class Task, int... number>
MINIBERT_INLINE void for_each(std::integer_sequence<int, number...>, const Task& task) {
    (task(std::integral_constant<int, number>()), ...);
}
template <int count, class Task>
MINIBERT_INLINE void for_each(const Task& task) {
    for_each(std::make_integer_sequence<int, count>(), task);
}

// task(first, size) for parts of at most `most` of `count` things, as even as can be: of 9 things in
// parts of 8 and 1 the last would waste most of its time.
template <int most, class Task>
inline void in_even_parts(int count, const Task& task) {
    for (int first = 0; first < count;) {
        const int left = count - first, parts = (left + most - 1) / most;
        const int size = (left + parts - 1) / parts;
        with_size<most>(size, first, task);
        first += size;
    }
}

}  // namespace minibert
