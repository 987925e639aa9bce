-- Removes messages, some at a time. KEYS: those of the stream. ARGV: uid, the number to begin with, the last
-- one to go, and a pattern as Lua has it, or nothing for all. Returns 'ok', how many went, and the number to go
-- on with, 0 at the end.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
go_on(s)
local from, last, pattern = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local gone, at = 0, from
for _ = 1, 64 do
  local found = redis.call('XRANGE', s.messages, id_of(at), id_of(last), 'COUNT', STEP)
  for _, entry in ipairs(found) do
    local sequence = sequence_of(entry[1])
    if pattern == '' or string.match(field(entry[2], 'subject'), lua_pattern(pattern)) then
      remove(s, sequence, entry[2])
      gone = gone + 1
    end
    at = sequence + 1
  end
  if #found < STEP then
    at = 0
    break
  end
end
save(s)
return { 'ok', gone, at }
