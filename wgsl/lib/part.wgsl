// A kernel that reads and writes `part`s is linked twice: in quads (its name with `Quads`, four elements at once, for sizes
// or rows that are multiples of four) and in single elements (for all others). Sizes and columns are counted in parts.
// `wide` is a part in f32, for computing.
import package::lib::elem::elem;

@if(quads) alias part = vec4<elem>;
@if(!quads) alias part = elem;
@if(quads) alias wide = vec4f;
@if(!quads) alias wide = f32;
@if(quads) const part_size = 4u;
@if(!quads) const part_size = 1u;

@if(quads) fn total(value: wide) -> f32 { return value.x + value.y + (value.z + value.w); }
@if(!quads) fn total(value: wide) -> f32 { return value; }

@if(quads) fn largest(value: wide) -> f32 { return max(max(value.x, value.y), max(value.z, value.w)); }
@if(!quads) fn largest(value: wide) -> f32 { return value; }

// 1 in place i of a part, 0 elsewhere.
@if(quads) fn place(i: u32) -> wide { return select(vec4f(0.0), vec4f(1.0), vec4u(0u, 1u, 2u, 3u) == vec4u(i)); }
@if(!quads) fn place(i: u32) -> wide { return 1.0; }

// Element i of a part.
@if(quads) fn pick(value: wide, i: u32) -> f32 { return total(select(wide(), value, vec4u(0u, 1u, 2u, 3u) == vec4u(i))); }
@if(!quads) fn pick(value: wide, i: u32) -> f32 { return value; }

// A whole number for each element of a part, and those that count the elements of part i.
@if(quads) alias numbers = vec4u;
@if(!quads) alias numbers = u32;
@if(quads) fn numbers_of(i: u32) -> numbers { return vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u); }
@if(!quads) fn numbers_of(i: u32) -> numbers { return i; }
