// What postgres.js's tests/index.js expects of ./bootstrap.js: exec(program, arguments). Roles and
// databases are there already.
import { spawnSync } from 'node:child_process'

export function exec(program, args) {
  const { stderr } = spawnSync(program, args, { stdio: 'pipe', encoding: 'utf8' })
  if (stderr && !/already exists|does not exist|WARNING:/.test(stderr)) throw new Error(stderr)
}
