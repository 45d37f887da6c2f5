// How maps over single elements or quads are dealt out: 256 invocations a workgroup, each with `each` parts that follow
// each other. A GPU wants 1, so that neighbours read neighbours; one in software 4, for fewer turns of its loops.
import package::lib::grid::flat_workgroup;

override each: u32 = 1;

// The parts of one invocation: from x, before y.
fn my_parts(group: vec3u, groups: vec3u, lane: u32, size: u32) -> vec2u {
  let first = (flat_workgroup(group, groups) * 256u + lane) * each;
  return vec2u(first, min(first + each, size));
}
