-- Says what a stream holds. KEYS: those of the stream. ARGV: uid. Returns 'ok', first and last number, how many
-- messages, their bytes, how many are delayed, how many message ids are known, and the consumers' names.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
go_on(s)
tend(s)
local oldest = redis.call('XRANGE', s.messages, '-', '+', 'COUNT', 1)[1]
return {
  'ok',
  oldest and sequence_of(oldest[1]) or s.last + 1,
  s.last,
  redis.call('XLEN', s.messages),
  s.bytes,
  redis.call('ZCARD', s.due),
  redis.call('ZCOUNT', s.expiries, '(' .. number(NOW), '+inf'),
  redis.call('ZRANGE', s.consumers, 0, -1),
}
