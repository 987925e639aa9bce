-- Ends a delivery, or gives it more time.
--
-- KEYS: those of the stream and of the consumer. ARGV: uid, the consumer's uid, lane, call, what (`ack`, `nak`,
-- `term`, `in_progress`), number, deliveries ever, whose it is, and the delay in milliseconds (-1: the backoff's)
-- or the reason. Returns 'ok' and how many messages are done by it.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
local lane, call, what, sequence = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local total, owner, extra = tonumber(ARGV[7]), ARGV[8], ARGV[9]
local before = recall(s, lane, call)
if before then
  return before
end
local held = state_of(c, sequence)
if not held or held.total ~= total or held.flag == 'R' then
  return { 'stream.ack' }
end
go_on(s)
local was_full = room(c) <= 0
local done = 0

if what == 'ack' then
  local over = { sequence }
  if c.ack == 'all' then
    -- What somebody else was handed, or nobody since it was driven again, is not meant.
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', c.held, '-inf', '(' .. number(sequence))) do
      local one = state_of(c, tonumber(name))
      if one.owner == owner and one.total > one.before then
        over[#over + 1] = tonumber(name)
      end
    end
  end
  forget(c, over)
  done = #over
  count(c, 'acknowledged', done)
elseif what == 'nak' then
  local delay = tonumber(extra)
  finish(s, c, sequence, held, NOW, 'returned', delay >= 0 and delay or nil)
elseif what == 'term' then
  note(held, NOW, 'terminated')
  die(s, c, sequence, held, extra)
else
  held.flag = 'O'
  hold(c, sequence, held, NOW + c.ack_wait)
end

save_consumer(s, c)
if what == 'nak' or was_full then
  ring(s)
end
return remember(s, lane, call, { 'ok', done })
