// The values of lib/packed.wgsl, the levels of NF4 looked up across eight lanes: each holds two, and a shuffle by the code
// is the table that a GPU in software lacks. With four lanes it is the tree of selections.
import package::lib::lanes::lent;
import package::lib::packed::{form, levels, codes, eight};

// The levels that this lane holds: of codes below eight, and of the others.
fn table_of(lane: u32) -> vec2f { return vec2f(levels[lane % 8u], levels[8u + lane % 8u]); }

fn level_by(table: vec2f, code: u32) -> f32 {
  let both = subgroupShuffle(table, code & 7u);
  return select(both.x, both.y, code > 7u);
}

// The eight values of step `at` times `scale`. All lanes must be in step.
fn eight_by(table: vec2f, at: u32, scale: f32) -> array<vec4f, 2> {
  if (form == 2u || lent < 8u) { return eight(at, scale); }
  return eight_of(table, codes[at], scale);
}

fn eight_of(table: vec2f, word: u32, scale: f32) -> array<vec4f, 2> {
  let low = vec4f(level_by(table, (word >> 4u) & 15u), level_by(table, word & 15u),
                  level_by(table, (word >> 12u) & 15u), level_by(table, (word >> 8u) & 15u));
  let high = vec4f(level_by(table, (word >> 20u) & 15u), level_by(table, (word >> 16u) & 15u),
                   level_by(table, word >> 28u), level_by(table, (word >> 24u) & 15u));
  return array<vec4f, 2>(scale * low, scale * high);
}
