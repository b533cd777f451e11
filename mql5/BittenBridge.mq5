//+------------------------------------------------------------------+
//| BittenBridge: tells the host what this terminal is and holds.     |
//|                                                                  |
//| It writes three JSON files into MQL5\Files\bitten\ on a timer,    |
//| the heartbeat last, so that a fresh heartbeat means fresh data.   |
//| It does not trade and needs no DLL. docs/bridge.md is the         |
//| contract that this file, the host agent and the paper terminal    |
//| keep.                                                             |
//+------------------------------------------------------------------+
#property copyright   "BITTEN Portal"
#property version     "1.00"
#property description "Reports account, positions and permissions to the host."

#define SCHEMA            1
#define FOLDER            "bitten\\"
#define LONGEST_FILE      65536   // characters of a file that is read
#define MOST_POSITIONS    2000    // the host refuses a larger file
#define LOWEST_TIMER_MS   200
#define HIGHEST_TIMER_MS  60000
#define REFRESH_MS        60000   // how often what did not change is looked up again all the same
#define HISTORY_SECONDS   (7 * 86400)

string   g_account = "";          // as last written
string   g_positions = "";
ulong    g_sequence = 0;
long     g_login = -1;
datetime g_last_order = 0;        // Unix time
bool     g_trade_seen = true;     // something happened that may be a new order
ulong    g_looked_at = 0;         // when the orders were last looked up, by GetTickCount64
ulong    g_complained_at = 0;

//+------------------------------------------------------------------+
int OnInit()
  {
   string bridge = ReadAll("bridge.json");
   string identity = ReadAll("identity.json");
   long timer = NumberIn(bridge, "timer_ms", 1000);
   if(timer < LOWEST_TIMER_MS)
      timer = LOWEST_TIMER_MS;
   if(timer > HIGHEST_TIMER_MS)
      timer = HIGHEST_TIMER_MS;
   if(!EventSetMillisecondTimer((int)timer))
     {
      Print("no timer, error ", GetLastError());
      return(INIT_FAILED);
     }
   PrintFormat("instance %I64d, magic %I64d, port %I64d, every %I64d ms",
               NumberIn(identity, "instance", 0), NumberIn(bridge, "magic", 0), NumberIn(bridge, "port", 0), timer);
   Report();
   return(INIT_SUCCEEDED);
  }

void OnDeinit(const int reason)
  {
   EventKillTimer();
  }

// On a timer and not on ticks: a closed market has none.
void OnTimer()
  {
   Report();
  }

void OnTrade()
  {
   g_trade_seen = true;
  }

//+------------------------------------------------------------------+
//| What is reported                                                  |
//+------------------------------------------------------------------+
void Report()
  {
   if(g_login != AccountInfoInteger(ACCOUNT_LOGIN))
     {
      g_login = AccountInfoInteger(ACCOUNT_LOGIN);
      g_last_order = 0;
      g_trade_seen = true;
     }
   LookUpLastOrder();
   // Whatever fails here is tried again by the next timer; without the other two there is no heartbeat.
   if(PublishChanged("account.json", Account(), g_account)
      && PublishChanged("positions.json", Positions(), g_positions))
     {
      g_sequence++;
      if(Publish("heartbeat.json", Heartbeat()))
         return;
     }
   Complain();
  }

string Account()
  {
   return("{\"schema\":" + IntegerToString(SCHEMA)
          + ",\"login\":" + IntegerToString(g_login)
          + ",\"server\":" + Quoted(Server())
          + ",\"name\":" + Quoted(AccountInfoString(ACCOUNT_NAME))
          + ",\"currency\":" + Quoted(AccountInfoString(ACCOUNT_CURRENCY))
          + ",\"balance\":" + Number(AccountInfoDouble(ACCOUNT_BALANCE), 8)
          + ",\"equity\":" + Number(AccountInfoDouble(ACCOUNT_EQUITY), 8)
          + ",\"margin\":" + Number(AccountInfoDouble(ACCOUNT_MARGIN), 8)
          + ",\"margin_free\":" + Number(AccountInfoDouble(ACCOUNT_MARGIN_FREE), 8)
          + ",\"leverage\":" + IntegerToString(AccountInfoInteger(ACCOUNT_LEVERAGE)) + "}");
  }

string Positions()
  {
   string rows = "";
   int total = MathMin(PositionsTotal(), MOST_POSITIONS);
   for(int i = 0; i < total; i++)
     {
      ulong ticket = PositionGetTicket(i);   // selects it, too
      if(ticket == 0)
         continue;                           // closed while we look
      string symbol = PositionGetString(POSITION_SYMBOL);
      int digits = (int)SymbolInfoInteger(symbol, SYMBOL_DIGITS);
      bool buy = (PositionGetInteger(POSITION_TYPE) == POSITION_TYPE_BUY);
      datetime opened = ToUnix((datetime)PositionGetInteger(POSITION_TIME));
      if(rows != "")
         rows += ",";
      rows += "{\"ticket\":" + StringFormat("%I64u", ticket)
              + ",\"symbol\":" + Quoted(symbol)
              + ",\"side\":" + (buy ? "\"buy\"" : "\"sell\"")
              + ",\"volume\":" + Number(PositionGetDouble(POSITION_VOLUME), 8)
              + ",\"open_price\":" + Number(PositionGetDouble(POSITION_PRICE_OPEN), digits)
              + ",\"profit\":" + Number(PositionGetDouble(POSITION_PROFIT), 8)
              + ",\"magic\":" + IntegerToString(PositionGetInteger(POSITION_MAGIC))
              + ",\"opened_at\":" + IntegerToString((long)opened) + "}";
     }
   return("{\"schema\":" + IntegerToString(SCHEMA)
          + ",\"positions\":[" + rows + "]"
          + ",\"orders\":" + IntegerToString(OrdersTotal())
          + ",\"last_order_at\":" + (g_last_order > 0 ? IntegerToString((long)g_last_order) : "null") + "}");
  }

string Heartbeat()
  {
   return("{\"schema\":" + IntegerToString(SCHEMA)
          + ",\"sequence\":" + StringFormat("%I64u", g_sequence)
          + ",\"at\":" + IntegerToString((long)TimeGMT()) + ".0"
          + ",\"login\":" + IntegerToString(g_login)
          + ",\"server\":" + Quoted(Server())
          + ",\"connected\":" + Flag(TerminalInfoInteger(TERMINAL_CONNECTED) != 0)
          + ",\"terminal_trade_allowed\":" + Flag(TerminalInfoInteger(TERMINAL_TRADE_ALLOWED) != 0)
          + ",\"account_trade_allowed\":" + Flag(AccountInfoInteger(ACCOUNT_TRADE_ALLOWED) != 0)
          + ",\"algo_trading\":" + Flag(MQLInfoInteger(MQL_TRADE_ALLOWED) != 0)
          + ",\"build\":" + IntegerToString(TerminalInfoInteger(TERMINAL_BUILD)) + "}");
  }

string Server()
  {
   return(g_login == 0 ? "" : AccountInfoString(ACCOUNT_SERVER));
  }

// The newest order of this account, by whatever hand: pending, filled or cancelled.
void LookUpLastOrder()
  {
   ulong now = GetTickCount64();
   if(!g_trade_seen && now - g_looked_at < (ulong)REFRESH_MS)
      return;
   if(g_login == 0 || !HistorySelect(TimeTradeServer() - HISTORY_SECONDS, TimeTradeServer() + 86400))
      return;
   datetime newest = 0;
   for(int i = HistoryOrdersTotal() - 1; i >= 0; i--)
     {
      ulong ticket = HistoryOrderGetTicket(i);
      datetime placed = (ticket == 0 ? 0 : (datetime)HistoryOrderGetInteger(ticket, ORDER_TIME_SETUP));
      if(placed > newest)
         newest = placed;
     }
   for(int i = OrdersTotal() - 1; i >= 0; i--)
     {
      ulong ticket = OrderGetTicket(i);      // selects it, too
      datetime placed = (ticket == 0 ? 0 : (datetime)OrderGetInteger(ORDER_TIME_SETUP));
      if(placed > newest)
         newest = placed;
     }
   g_last_order = (newest > 0 ? ToUnix(newest) : 0);
   g_trade_seen = false;
   g_looked_at = now;
  }

// The broker's times are in its own zone, which differs from UTC by whole quarters of an hour.
datetime ToUnix(const datetime broker_time)
  {
   long offset = (long)MathRound((double)(TimeTradeServer() - TimeGMT()) / 900.0) * 900;
   return((datetime)((long)broker_time - offset));
  }

//+------------------------------------------------------------------+
//| Files                                                             |
//+------------------------------------------------------------------+
bool PublishChanged(const string name, const string text, string &written)
  {
   if(text == written && FileIsExist(FOLDER + name))
      return(true);
   if(!Publish(name, text))
      return(false);
   written = text;
   return(true);
  }

// Written aside and moved, so that no reader ever sees half a file. The move fails while the host has the old one open.
bool Publish(const string name, const string text)
  {
   string target = FOLDER + name;
   string draft = target + ".tmp";
   int handle = FileOpen(draft, FILE_WRITE | FILE_TXT | FILE_ANSI, '\t', CP_UTF8);
   if(handle == INVALID_HANDLE)
      return(false);
   uint written = FileWriteString(handle, text);
   FileClose(handle);
   if(written < (uint)StringLen(text))       // a full disk
      return(false);
   return(FileMove(draft, 0, target, FILE_REWRITE));
  }

string ReadAll(const string name)
  {
   int handle = FileOpen(FOLDER + name, FILE_READ | FILE_TXT | FILE_ANSI | FILE_SHARE_READ | FILE_SHARE_WRITE, '\t', CP_UTF8);
   if(handle == INVALID_HANDLE)
      return("");
   string text = "";
   while(!FileIsEnding(handle) && StringLen(text) < LONGEST_FILE)
      text += FileReadString(handle);
   FileClose(handle);
   return(text);
  }

void Complain()
  {
   ulong now = GetTickCount64();
   if(g_complained_at != 0 && now - g_complained_at < (ulong)REFRESH_MS)
      return;
   g_complained_at = now;
   Print("not all written, error ", GetLastError());
  }

//+------------------------------------------------------------------+
//| JSON                                                              |
//+------------------------------------------------------------------+
// The whole number after "key": in a flat object; enough for the files that the host writes for us.
long NumberIn(const string json, const string key, const long otherwise)
  {
   int at = StringFind(json, "\"" + key + "\"");
   if(at < 0)
      return(otherwise);
   at = StringFind(json, ":", at);
   if(at < 0)
      return(otherwise);
   int length = StringLen(json);
   at++;
   while(at < length && StringGetCharacter(json, at) == ' ')
      at++;
   string digits = "";
   while(at < length && StringLen(digits) < 18)
     {
      ushort c = StringGetCharacter(json, at);
      if(c < '0' || c > '9')
         break;
      digits += ShortToString(c);
      at++;
     }
   return(digits == "" ? otherwise : StringToInteger(digits));
  }

// ASCII only: whatever code page a reader assumes, it reads the same.
string Quoted(const string text)
  {
   string quoted = "\"";
   int length = MathMin(StringLen(text), 128);
   for(int i = 0; i < length; i++)
     {
      ushort c = StringGetCharacter(text, i);
      if(c == '"' || c == '\\')
         quoted += "\\" + ShortToString(c);
      else if(c < 0x20 || c > 0x7E)
         quoted += StringFormat("\\u%04x", c);
      else
         quoted += ShortToString(c);
     }
   return(quoted + "\"");
  }

string Number(const double value, const int digits)
  {
   return(MathIsValidNumber(value) ? DoubleToString(value, digits) : "0.0");
  }

string Flag(const bool on)
  {
   return(on ? "true" : "false");
  }
//+------------------------------------------------------------------+
