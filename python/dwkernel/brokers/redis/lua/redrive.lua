-- Delivers the message of a dead letter again; what the stream has let go is taken in again. KEYS: those of the
-- stream and of the consumer. ARGV: uid, the consumer's uid, lane, call, the number. Returns 'ok' and 1, or 0 if
-- there is no such letter; 'stream.full'.

local s = stream_at(0, ARGV[1])
if not s then
  return NOT_FOUND
end
local c = consumer_at(STREAM_KEYS, ARGV[2])
if not c then
  return NO_CONSUMER
end
local lane, call, sequence = ARGV[3], ARGV[4], tonumber(ARGV[5])
local before = recall(s, lane, call)
if before then
  return before
end
go_on(s)
local names = redis.call('ZRANGEBYSCORE', c.dead, sequence, sequence)
if #names == 0 then
  return { 'ok', 0 }
end
local id = id_of(tonumber(names[#names]))
local letter = redis.call('XRANGE', c.letters, id, id)[1][2]
if message_of(s, sequence) then
  if room(c) <= 0 then
    return { 'stream.full', '1', number(c.max_ack_pending) .. ' messages out' }
  end
  local total = tonumber(field(letter, 'letter_deliveries'))
  local held = {
    total = total, before = total, first = number(NOW), flag = 'R', owner = '-',
    history = field(letter, 'letter_history'),
  }
  redis.call('ZADD', c.held, sequence, number(sequence))
  hold(c, sequence, held, NOW)
elseif field(letter, 'letter_found') == '1' then
  local fields = {}
  for at = 1, #letter, 2 do
    local name = letter[at]
    if string.sub(name, 1, 7) ~= 'letter_' and name ~= 'time' and name ~= 'message_id' then
      fields[#fields + 1], fields[#fields + 2] = name, letter[at + 1]
    end
  end
  append(s, fields)
  save(s)
end
for _, name in ipairs(names) do
  redis.call('XDEL', c.letters, id_of(tonumber(name)))
end
redis.call('ZREM', c.dead, unpack(names))
save_consumer(s, c)
ring(s)
return remember(s, lane, call, { 'ok', 1 })
