-- Reads messages in their order.
--
-- KEYS: those of the stream. ARGV: uid, `sequence` or `time`, a number or microseconds, how many at most.
-- Returns 'ok', the entries, the number behind the last one that was looked at, and how many milliseconds
-- until a delayed message is due (-1: none is).

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
go_on(s)
local READ_BYTES_MAX = 1048576
local wait = tend(s)
local at, most = tonumber(ARGV[3]), tonumber(ARGV[4])
if ARGV[2] == 'time' then
  at = first_since(s, at)
end
local entries, bytes = {}, 0
while #entries < most and bytes < READ_BYTES_MAX do
  local step = math.min(STEP, most - #entries)
  local found = redis.call('XRANGE', s.messages, id_of(at), '+', 'COUNT', step)
  for _, entry in ipairs(found) do
    if bytes < READ_BYTES_MAX then
      entries[#entries + 1] = entry
      bytes = bytes + size_of(entry[2])
      at = sequence_of(entry[1]) + 1
    end
  end
  if #found < step then
    break
  end
end
return { 'ok', entries, at, wait }
