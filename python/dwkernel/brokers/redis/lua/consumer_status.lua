-- Says how a consumer stands. KEYS: those of the stream and of the consumer. ARGV: uid, the consumer's uid.
-- Returns 'ok', lag, out, scheduled, redelivered, floor, highest number, paused, when the oldest of what is held
-- was first delivered (-1: nothing is), deliveries, acknowledged, dead letters, and the time, in milliseconds.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
go_on(s)
tend(s)
local out, scheduled, redelivered, oldest = 0, 0, 0, -1
for _, name in ipairs(redis.call('ZRANGE', c.held, 0, -1)) do
  local held = state_of(c, tonumber(name))
  if held.flag == 'O' and tonumber(redis.call('ZSCORE', c.times, name)) > NOW then
    out = out + 1
  else
    scheduled = scheduled + 1
  end
  if held.total - held.before > 1 then
    redelivered = redelivered + 1
  end
  local first = tonumber(held.first)
  oldest = oldest < 0 and first or math.min(oldest, first)
end
local first = redis.call('XRANGE', s.messages, '-', '+', 'COUNT', 1)[1]
local behind = first and math.max(0, s.last - math.max(c.cursor, sequence_of(first[1]) - 1)) or 0
local counts = redis.call('HMGET', c.info, 'deliveries', 'acknowledged')
return {
  'ok',
  math.min(behind, redis.call('XLEN', s.messages)),
  out,
  scheduled,
  redelivered,
  math.min(floor_of(c), s.last),
  c.top,
  c.paused and 1 or 0,
  oldest,
  tonumber(counts[1] or 0),
  tonumber(counts[2] or 0),
  redis.call('ZCARD', c.dead),
  NOW,
}
